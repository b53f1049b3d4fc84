"""Find the best guidance route: python tools/search_routes.py … is `mmkd search_routes …`."""

from mmkd.commands.search_routes import main

if __name__ == '__main__':
    main()
