"""The plain config of a distilled student, and its place in every checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from mmkd.checkpoint import atomic_file
from mmkd.checks.data_guard import DataGuardHook
from mmkd.checks.preflight import PreflightHook
from mmkd.config import distils, load_config, type_name
from mmkd.engine.overhead import OverheadHook
from mmkd.registry import HOOKS
from mmkd.students import deployed_as, import_edits, is_edited, student_of

#: what the tools add to ``custom_hooks`` of every run
RUN_HOOKS = (PreflightHook, DataGuardHook, OverheadHook)


def network_of(model: Mapping[str, Any], who: str = 'student') -> Any:
    """The config of the student, or of ``'peers.<name>'``, in that of a Distiller.

    Raises:
        ValueError: it has no such peer.
    """
    entries = {'student': student_of(model)}
    entries |= {f'peers.{name}': entry for name, entry in (model.get('peers') or {}).items()}
    if who not in entries:
        raise ValueError(
            f'there is no network {who!r} in this config; it has {", ".join(entries)}.'
        )
    found = entries[who]
    if is_edited(found):
        return found
    if not isinstance(found, str):
        return found.get('model', found)
    return load_config(found).model


def model_for(config: Config, who: str = 'student') -> Any:
    """The model of a config; in that of a distillation run the one of a network.

    Raises:
        ValueError: there is no such network.
    """
    model = config.get('model')
    if distils(model):
        return network_of(model, who)
    if who != 'student':
        raise ValueError(f'{config.filename} trains one model, so it has no network {who!r}.')
    return model


def student_config(config: Config, who: str = 'student') -> Config:
    """A copy for one network alone, without teacher, objectives and the hooks of mmkd's tools.

    Args:
        config (Config): of a distillation run, or of an edited model, which keeps the edits that
            its weights do not carry; another is copied as it is.
        who (str): ``'student'``, or ``'peers.<name>'``.

    Raises:
        ValueError: there is no such network.
    """
    plain = copy.deepcopy(config)
    model = model_for(plain, who)
    edited = is_edited(model)
    if not distils(plain.get('model')) and not edited:
        return plain
    plain.model = deployed_as(model['model'], model['edits']) if edited else model
    ours = {hook.__name__ for hook in RUN_HOOKS}
    hooks = plain.get('custom_hooks') or []
    hooks = [hook for hook in hooks if isinstance(hook, Hook) or type_name(hook) not in ours]
    _keep(plain, 'custom_hooks', hooks)
    imports = plain.get('custom_imports') or {}
    if isinstance(imports.get('imports'), list):
        _keep(imports, 'imports', [name for name in imports['imports'] if name != 'mmkd'])
        _keep(plain, 'custom_imports', imports if 'imports' in imports else [])
    import_edits(plain)
    return plain


def write_config(config: Config, path: str) -> None:
    """Write a config to a file that was not there, or not half."""
    with atomic_file(path) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(config.pretty_text)


def _keep(config: Any, key: str, rest: Any) -> None:
    """Set the rest of an entry, or remove the entry if it is empty."""
    if rest:
        config[key] = rest
    elif key in config:
        del (config._cfg_dict if isinstance(config, Config) else config)[key]


@HOOKS.register_module()
class StudentConfigHook(Hook):
    """Gives checkpoints of a distillation run the student's config where stock tools look for one.

    ``meta.cfg`` and ``message_hub.runtime_info.cfg`` build the plain student, so that
    ``DetInferencer(weights=file)`` needs neither teacher nor mmkd. The run's own config is kept in
    ``meta.distillation_cfg``.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.texts: tuple[str, str] | None = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if not distils(runner.cfg.get('model')):
            return
        meta = checkpoint['meta']
        whole = meta.get('cfg')
        if self.texts is None or self.texts[0] != whole:  # formatting takes a second
            self.texts = whole, student_config(runner.cfg).pretty_text
        meta.update(cfg=self.texts[1], distillation_cfg=whole)
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        if 'cfg' in info:
            info['cfg'] = self.texts[1]
