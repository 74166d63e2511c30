"""Ctrl-C as a user knows it, also when the tests were started in the background, where a shell has
it ignored, by them and all they start."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
