"""Dry run without data: python tools/plan.py … is `mmkd plan …`."""

from mmkd.commands.plan import main

if __name__ == '__main__':
    main()
