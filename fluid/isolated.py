"""Calls in a process of their own: where the code of others crashes on a file, that is an error here and not the end."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from fluid.errors import UserError

Result = TypeVar("Result")


class Crashed(Exception):
    """The process ended without an answer; its exit code."""


def call(function: Callable[..., Result], *arguments: object) -> Result:
    """What a function of an importable module returns, called in a fresh process.

    Raises Crashed if that process ended before, a UserError as the function raised it, its other errors as RuntimeError.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        error, result = receiver.recv()
    except (EOFError, OSError):  # the latter in the middle of the answer
        process.join()
        raise Crashed(process.exitcode) from None
    finally:
        receiver.close()
        process.join()
    if error is not None:
        raise error
    return result


def _send(sender: Connection, function: Callable, arguments: tuple) -> None:
    answer: tuple[Exception | None, object]
    try:
        answer = (None, function(*arguments))
    except UserError as error:
        answer = (error, None)
    except Exception as error:  # whatever it is, it is the caller's answer
        answer = (RuntimeError(str(error) or type(error).__name__), None)
    sender.send(answer)
