"""What the command lines of infer.py and eval.py have in common."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter


def parser_of(description: str | None) -> ArgumentParser:
    """A parser with the flags that say which net runs, how, and what it is shown.

    Defaults of the preprocessing come from the net's transform_param, see `images.from_flags`.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="DIR", help="folder that convert.py wrote")
    running = parser.add_argument_group("running")
    running.add_argument("--no_onednn", action="store_true", help="Paddle's plain kernels")
    running.add_argument("--threads", type=int, default=1)
    shown = parser.add_argument_group("preprocessing, (pixels - mean) * scale of values 0..255")
    shown.add_argument("--mean", help="104,117,123 (in the channel order of the net), a .binaryproto or a .npy")
    shown.add_argument("--scale", type=float, help="factor after the mean; e.g. 0.017 or 0.00392157")
    shown.add_argument("--rgb", action="store_true", help="the net was trained on red-green-blue (default: BGR)")
    shown.add_argument(
        "--resize", metavar="N|HxW|short:N", help="size before the middle is cut out (default: the size of the input)"
    )
    shown.add_argument(
        "--size",
        metavar="N|HxW|image",
        help="size of the input, where the net takes any: `image` keeps each image's own",
    )
    return parser


def parsed(parser: ArgumentParser, argv: list[str] | None, *counts: str) -> Namespace:
    """The command line; exits with 2 where `--threads` or one of the flags `counts` is below 1."""
    args = parser.parse_args(argv)
    for name in ("threads", *counts):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return args
