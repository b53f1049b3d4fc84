# CamVid, PSPNet: eight methods and two combinations, with their defaults and with balance.
names = ('skd_pixel', 'skd_pixel_pair', 'cwd', 'cwd_features', 'ifvd', 'dist', 'at', 'sp')
methods = {name: f'mmkd::small/{name}_pspnet_r18w32_r18w8_camvid.py' for name in names}
for first in ('cwd_features', 'skd_pixel'):
    methods[f'dist+{first}'] = dict(
        config=methods[first], options={'model.objectives.dist': dict(type='mmkd.DIST')}
    )
teacher = 'mmkd::small/pspnet_r18w32_camvid.py'
student = 'mmkd::small/pspnet_r18w8_camvid.py'
grid = {'model.balance': [None, 0.3]}
seeds = [0, 1]
