"""Draw masks, attention and predictions: python tools/visualize.py … is `mmkd visualize …`."""

from mmkd.commands.visualize import main

if __name__ == '__main__':
    main()
