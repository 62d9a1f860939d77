"""Other people's code that blocks, beside the event loop that keeps the leases."""

import asyncio
import contextvars
import ctypes
import dis
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
from types import CodeType
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own, and return or raise what it does.

    `asyncio.to_thread` has a handful for all calls of a process, and a process that ends waits for each of them. When
    the caller is cancelled, the thread ends at the next line of Python that it comes to.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()
    ending, is_over = threading.Lock(), False

    def settle(how: Callable[[Any], None], what: Any) -> None:
        if not done.done():  # the caller was cancelled
            how(what)

    def run() -> None:
        nonlocal is_over
        try:
            outcome: tuple[Callable[[Any], None], Any] = done.set_result, context.run(work)
        except StopIteration as error:  # which no future takes
            outcome = done.set_exception, RuntimeError(f"StopIteration: {error}")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            outcome = done.set_exception, error
        with ending, suppress(RuntimeError):  # the loop is gone
            is_over = True
            loop.call_soon_threadsafe(settle, *outcome)

    thread = threading.Thread(target=run, name="blocking-call", daemon=True)
    thread.start()
    try:
        return await done
    except asyncio.CancelledError:
        # under the lock: a thread that is over gives its number to another
        with ending:
            if not is_over:
                _end(thread)
        raise


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in it, the one exception that ends a thread and its event loop without a word."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


async def awaited_in_thread(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `make` returns in a thread of its own, with a loop of its own."""

    def run() -> T:
        # not asyncio.run: DeepEval replaces it by one that leaves its loop open
        with asyncio.Runner() as runner:
            return runner.run(make())

    return await in_thread(run)


def never_awaits(function: Callable[..., Any]) -> bool:
    """Whether the function is `async` in name only, such as `async def a_generate(…): return self.generate(…)`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and inspect.iscoroutinefunction(function) and not _suspends(code)


@cache
def _suspends(code: CodeType) -> bool:
    return any(step.opname == "YIELD_VALUE" for step in dis.get_instructions(code))  # what each `await` is made of
