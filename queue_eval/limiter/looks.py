"""How often a process looks at the limiter when nothing wakes it."""

from queue_eval.limiter.sync_script import SyncReply

LOOK_S = 0.25  # with calls waiting, though Redis wakes this process when one is released
LOOKS_PER_S = 2000.0  # of all processes together: many look less often,
MOST_LOOK_S = 0.4  # but so often that Redis takes none of them for gone
UNWOKEN_LOOK_S = 0.1  # where Redis cannot wake it
UNWOKEN_FULL_LOOK_S = 0.05  # a place may become free by a call of another process
IDLE_LOOK_S = 0.5  # with calls under way but none waiting: stay known, and know how many processes there are
IDLE_AFTER_S = 10.0
IN_FLIGHT_LOOK_S = 1.0  # a process that is not seen for three seconds has nothing in flight
IDLE_LOOK_LATER_S = 20.0  # a run that is not seen for a minute binds no other


def waiting_s(processes: int) -> float:
    """Return the longest time between two looks with calls waiting."""
    return min(max(LOOK_S, processes / LOOKS_PER_S), MOST_LOOK_S)


def with_calls_waiting_s(reply: SyncReply, *, is_woken: bool) -> float:
    """`is_woken`: Redis wakes this process when one of its calls is released."""
    if is_woken:
        return waiting_s(reply.processes)
    return UNWOKEN_FULL_LOOK_S if reply.is_full else UNWOKEN_LOOK_S


def idle_s(processes: int, *, rests: bool, in_flight: int) -> float:
    """`rests`: Redis knows that this process looks seldom."""
    if not rests:
        return max(IDLE_LOOK_S, waiting_s(processes))
    return IN_FLIGHT_LOOK_S if in_flight else IDLE_LOOK_LATER_S
