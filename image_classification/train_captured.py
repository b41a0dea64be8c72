"""Train on a machine that has JAX but no Paddle: everything train.py would build is captured here and run there.

    python train_captured.py capture captured --data_dir DATA --model ResNet50 ...     with Paddle; the flags of train.py
    python train_captured.py run captured --data_dir DATA --output_dir output          without

`run` is train.py's loop on the same Programs and the same batches, always on the xla engine: its checkpoints are those of
train.py, which can continue them. What shapes the Programs and the batches is fixed by `capture`; the data may lie
elsewhere, but must be as many.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.data import batches_per_epoch, training_batches
from fluid.engine.xla import graph as graphs
from fluid.errors import DataError, UserError
from fluid.metrics import measure
from fluid.run import Run, script
from fluid.trainer import Evaluation, Outcome, benchmark, check_fits, resume, train
from image_classification.classifier import TASK, Classifier
from image_classification.metrics import Accuracy
from image_classification.reader import Augment, ImageSource, open_images
from image_classification.report import finish

import tyro

JOB = "job.json"


@dataclass
class Flags(TrainFlags):
    """Train what `capture` wrote, on the xla engine."""

    captured: Annotated[Path, tyro.conf.Positional] = Path("captured")
    """Folder that `capture` wrote."""
    data_dir: Path | None = None
    """Folder of the data set; by default the embedded images."""
    test_batch_size: int = 1000
    """Images in a batch of the evaluation; changes its speed, not its result."""


def capture(argv: Sequence[str]) -> None:
    """Write the folder argv[0]: Programs, initial state, and the facts that `run` needs. The rest are train.py's flags."""
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import initialise
    from image_classification import train as training
    from image_classification.network import evaluation_program, load_weights

    if not argv or argv[0].startswith("-"):
        raise UserError("capture FOLDER [flags of train.py]: name the folder first")
    folder = Path(argv[0])
    flags = configuration.parse(training.Flags, argv[1:], aliases=training.ALIASES, retired=training.RETIRED)
    if flags.accumulate_batches > 1 or flags.use_ema or flags.use_mixup:
        raise UserError("accumulated gradients, averages and mixup are not captured; train with train.py")
    if flags.prescale_short_side is not None:
        raise UserError("--prescale_short_side: make the copy with prescale.py, and give it to `run` as --data_dir")
    classifier = training.describe(flags)
    augment = training.augmentation(flags, classifier.preprocess)
    images = len(open_images(flags.data_dir, "train", classifier.class_dim))
    steps_per_epoch = images // flags.batch_size
    program, _ = training.training_programs(flags, classifier, training.learning_rate(flags, steps_per_epoch))
    state = initialise(program, seed=flags.seed)
    if flags.pretrained_model is not None:
        state, _ = load_weights(state, flags.pretrained_model, classifier)
    graphs.save(folder / "programs", [capture_program(program), capture_program(evaluation_program(classifier))], state)
    job = {
        "classifier": classifier.to_facts(),
        "augment": None if augment is None else vars(augment),
        "config": configuration.to_dict(flags),
        "images": images,
    }
    (folder / JOB).write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {classifier.model}, {images} images, {flags.num_epochs} epochs of {steps_per_epoch} updates")


def run_captured(flags: Flags) -> Outcome:
    """Train; returns how the run ended."""
    try:
        job = json.loads((flags.captured / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{flags.captured} was not written by `train_captured.py capture` ({error})") from error
    programs, state = graphs.load(flags.captured / "programs")
    classifier, config = Classifier.from_facts(job["classifier"]), job["config"]
    train_images, test_images = (open_images(flags.data_dir, part, classifier.class_dim) for part in ("train", "val"))
    if len(train_images) != job["images"]:
        raise DataError(f"{flags.captured} was captured for {job['images']} training images, not {len(train_images)}")
    augment = None if job["augment"] is None else Augment(**job["augment"])
    train_source = ImageSource(train_images, classifier.preprocess, augment)
    test_source = ImageSource(test_images, classifier.preprocess)
    steps_per_epoch = batches_per_epoch(train_source, config["batch_size"])
    total_steps = config["num_epochs"] * steps_per_epoch

    engine, _ = engines.create("xla", flags.device, flags.precision, config["seed"], hosts=flags.hosts)
    engine.check_batch_size(config["batch_size"])
    resumed = resume(flags, TASK)
    meta = Meta(TASK, 0, config=config, extra={"classifier": classifier.to_facts()})
    if resumed is not None:
        check_fits(resumed.state, state, flags.checkpoint)
        state, meta = resumed.state, resumed.meta
    engine.load(state)
    measured = Accuracy(classifier.class_dim)

    def evaluate() -> dict[str, float]:
        nonlocal measured
        measured = measure(
            engine,
            programs["eval"],
            test_source,
            Accuracy(classifier.class_dim),
            batch_size=flags.test_batch_size,
            num_workers=flags.num_workers,
        )
        return measured.result()

    def open_batches(start: int):
        return training_batches(
            train_source,
            config["batch_size"],
            seed=config["seed"],
            start=start,
            num_workers=flags.num_workers,
            shard=(engine.host_id, engine.num_hosts),
        )

    with Run(
        flags.output_dir,
        flags,
        task=TASK,
        resumed=resumed,
        writes=engine.host_id == 0,
        records=not flags.benchmark,
    ) as run:
        run.say(f"{classifier.model}, {len(train_source)} training and {len(test_source)} test images")
        run.say(f"engine {engine.name} on {engine.device}, {flags.precision}, seed {config['seed']}")
        if flags.benchmark:
            result = benchmark(run, engine, programs["train"], open_batches)
            for name, value in result.items():
                run.say(f"{name:>12} {value:.4g}{' images/s' if name in ('synthetic', 'reader', 'real') else ''}")
            return Outcome(step=0)
        outcome = train(
            run,
            engine,
            programs["train"],
            open_batches,
            flags=flags,
            steps_per_epoch=steps_per_epoch,
            total_steps=min(total_steps, flags.max_steps or total_steps),
            evaluations=[Evaluation("eval", evaluate, decides="acc1", higher_is_better=True)],
            meta=meta,
            resumed=resumed,
        )
        if run.writes and not outcome.nothing_left:
            finish(run, outcome, measured, classifier)
    return outcome


def cli(argv: Sequence[str] | None = None) -> None:
    """`capture FOLDER [flags of train.py]` or `run FOLDER [flags]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["capture"]:
        script(lambda: capture(words[1:]))
    elif words[:1] == ["run"]:
        script(lambda: run_captured(configuration.parse(Flags, words[1:])))
    else:
        print(__doc__, file=sys.stdout if words[:1] in (["-h"], ["--help"]) else sys.stderr)
        sys.exit(0 if words[:1] in (["-h"], ["--help"]) else 2)


if __name__ == "__main__":
    cli()
