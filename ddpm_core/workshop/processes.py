"""Processes that train together: how many there are, and when they end."""

import os
import threading
import time


def launched() -> int:
    """How many processes torchrun or accelerate started; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_with_the_launcher(every: float = 1.0) -> None:
    """End this process when the one that launched it is gone, even if killed.

    Does nothing for a process that trains alone. What a killed launcher leaves behind
    would otherwise train on, unseen, and keep the folder of its run.
    """
    if launched() == 1 or any(t.name == WATCH for t in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, name=WATCH, daemon=True).start()


WATCH = "ends with the launcher"
