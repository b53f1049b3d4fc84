"""Score a checkpoint: python tools/test.py … is `mmkd test …`."""

from mmkd.commands.test import main

if __name__ == '__main__':
    main()
