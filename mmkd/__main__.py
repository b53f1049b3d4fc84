"""``python -m mmkd COMMAND …``, which is ``mmkd COMMAND …``."""

from mmkd.commands import main

if __name__ == '__main__':
    main()
