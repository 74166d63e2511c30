"""For all tests: no example is too slow, whatever else the machine does; and Ctrl-C as a user knows
it, also when they were started in the background, where a shell has it ignored."""

import signal

from hypothesis import settings

settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
