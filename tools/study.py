"""A study of several runs: python tools/study.py … is `mmkd study …`."""

from mmkd.commands.study import main

if __name__ == '__main__':
    main()
