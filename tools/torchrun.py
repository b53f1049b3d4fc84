"""torchrun without its own traceback: the processes have printed their errors."""

import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except SignalException as stop:
        sys.exit(128 + stop.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:  # killed, so it could not say anything
            name = signal.Signals(-failure.exitcode).name
            hint = ' The machine may have run out of memory.' * (name == 'SIGKILL')
            print(f'\nerror: the process of rank {rank} ended with {name}.{hint}', file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
