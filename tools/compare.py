"""Scores side by side: python tools/compare.py … is `mmkd compare …`."""

from mmkd.commands.compare import main

if __name__ == '__main__':
    main()
