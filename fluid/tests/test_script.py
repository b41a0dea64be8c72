"""How a script ends, whatever ends it: one message, no traceback, an exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from fluid.errors import UserError

import pytest

START = "import errno, os, signal, sys\nfrom fluid.errors import UserError\nfrom fluid.run import script, console\n"


def run(code: str, output: IO[bytes] | int = subprocess.PIPE, **environment: str) -> tuple[int, str, str]:
    """Exit code and output of a script with this body; its standard output may be a file."""
    body = START + "def main():\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "script(main)\n"
    done = subprocess.run(
        [sys.executable, "-c", body],
        stdout=output,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )
    return done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    "code, said",
    [
        ("raise UserError('x')", "error: x\n"),
        (
            "raise OSError(errno.EMFILE, 'Too many open files', 'a')",
            "error: a: Too many open files; raise `ulimit -n`\n",
        ),
        ("open('/' + 'a' * 300)", f"error: /{'a' * 300}: File name too long\n"),
        ("raise MemoryError", "error: memory ran out; give smaller batches, or fewer at a time\n"),
    ],
)
def test_what_the_user_or_the_machine_causes_is_one_message(code, said):
    assert run(code) == (1, "", said)


def test_a_disk_that_is_full_elsewhere_is_not_taken_for_that_of_the_output():
    code, out, said = run("raise OSError(errno.ENOSPC, 'No space')")
    assert (code, out.strip(), said) == (1, "", "error: No space; free some space\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("code", ["print('x')", "console.print('x')", "print('x' * 10**5)", "print('x'); sys.exit(2)"])
def test_output_that_cannot_be_written_is_named(code, unbuffered):
    with open("/dev/full", "wb") as full:
        told = run(code, full, PYTHONUNBUFFERED=unbuffered)
    assert told == (1, "", "error: standard output: No space left on device; free some space\n")


def test_a_full_disk_hides_no_other_error():
    with open("/dev/full", "wb") as full:
        assert run("print('x'); raise UserError('y')", full, PYTHONUNBUFFERED="") == (1, "", "error: y\n")
        code, _, said = run("print('x'); raise KeyError('y')", full, PYTHONUNBUFFERED="")
    assert code == 1 and said.endswith("KeyError: 'y'\n")


def test_a_reader_who_goes_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        assert run("print('x')", closed) == (1, "", "")


def test_a_mistake_of_the_zoo_keeps_its_traceback():
    code, _, said = run("raise KeyError('x')")
    assert code == 1 and said.startswith("Traceback")


@pytest.mark.parametrize("swallow", ["raise", "raise RuntimeError('C++ says so') from None"])
def test_ctrl_c_is_quiet_whatever_becomes_of_it_on_the_way(swallow):
    body = f"try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    {swallow}"
    assert run(body) == (130, "", "")


def test_sigterm_is_quiet_with_paddle_too():
    assert run("import fluid.program; os.kill(os.getpid(), signal.SIGTERM)") == (-signal.SIGTERM, "", "")
    watched = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); import fluid.program; os.kill(os.getpid(), signal.SIGTERM)"
    assert run(watched) == (7, "", "")


def test_ctrl_c_while_modules_are_imported_is_quiet():
    body = "import fluid, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    body = f"import fluid, sys; file = open({str(tmp_path / 'file')!r}, 'w'); file.write(sys.stdin.read() + str(file.fileno())); sys.stdout.write('x')"
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, body]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert int((tmp_path / "file").read_text()) > 2


@pytest.mark.parametrize("name", ["'\\u732b'", "os.fsdecode(b'\\xff')"])
def test_names_that_the_terminal_cannot_show(name):
    code, out, said = run(
        f"print({name}); console.print({name}); raise UserError({name})", LC_ALL="C", PYTHONIOENCODING="ascii"
    )
    assert code == 1 and out.count("\\u") == 2 and said.startswith("error: \\u")


def test_what_a_message_quotes_is_short_and_commands_no_terminal():
    shown = str(UserError(f"list.txt:1: {'9' * 10**6} is no label\nsecond line \x1b[2J\0"))
    first, second = shown.split("\n")
    assert first.startswith("list.txt:1: 999") and first.endswith("999 is no label") and len(first) < 1000
    assert second == "second line \\x1b[2J\\x00"


def test_what_is_printed_stays_as_it_is():
    """Brackets are styles to rich, and words between colons pictures: a sentence in a table lost them, or was an error."""
    text = "[y/N] [bold] [/b] :cat:"
    code = f"from fluid.run import show_summary\nconsole.print({text!r})\nshow_summary('[/i]', {{'[a]': {text!r}}})"
    status, said, complaint = run(code)
    assert (status, said.count(text), complaint) == (0, 2, "")
    assert "[/i]" in said and "[a]" in said


def test_the_threads_of_numpy_sleep_from_the_start():
    """What is in the environment when NumPy is first imported decides, unless a user has decided."""
    code = "print('numpy' in sys.modules, os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    body = f"import os, sys, fluid\n{code}"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    for asked, used in (({}, "4"), ({"OPENBLAS_THREAD_TIMEOUT": "20"}, "20")):
        said = subprocess.check_output([sys.executable, "-c", body], env=environment | asked, text=True)
        assert said.split() == ["False", used]
