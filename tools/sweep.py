"""Runs that differ in one number: python tools/sweep.py … is `mmkd sweep …`."""

from mmkd.commands.sweep import main

if __name__ == '__main__':
    main()
