"""Folders of released models: on this disk, in the hub's cache, or downloaded if that is asked."""

from __future__ import annotations

import os
from pathlib import Path

#: what is fetched: weights that hold nothing but tensors, and plain text
FILES = ('*.json', '*.safetensors')


def folder_of(name: str, option: str, download: bool = False) -> str:
    """The folder of a model.

    Args:
        name (str): a folder, or the name of a model on the hub of Hugging Face, ``'owner/model'``.
        option (str): how a config names a folder, for messages, such as ``'transformers/'``.
        download (bool): fetch what is not there.

    Raises:
        FileNotFoundError: it is nowhere here; the message says where it was looked for.
        ImportError: a name of the hub, whose library is not installed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith(('.', '/', '~')) or name.count('/') != 1:
        raise FileNotFoundError(
            f'VisionModel: there is no folder {name}. It must hold config.json and '
            'model.safetensors, as the hub has them.'
        )
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError:
        raise ImportError(
            f'VisionModel: there is no folder {name}, and to look for the model of this name in '
            "the hub's cache huggingface_hub is needed: pip install huggingface_hub."
        ) from None
    try:
        return snapshot_download(name, local_files_only=not download, allow_patterns=[*FILES])
    except Exception as error:  # noqa: BLE001  whatever a network or a hub may say
        tried = f' It could not be downloaded: {_first_line(error)}' if download else ''
        raise FileNotFoundError(
            f'VisionModel: {name} is neither a folder here ({path.absolute()}) nor in the cache of '
            f'the hub ({constants.HF_HUB_CACHE}).{tried} Where there is a network, run hf download '
            f'{name} --include "*.json" "*.safetensors" --local-dir FOLDER, copy the folder here '
            f"and set model='{option}FOLDER'; or let download=True fetch it."
        ) from None


def weights_in(folder: str) -> str:
    """The one file of weights in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(folder, 'model.safetensors')
    if not path.is_file():
        others = [p.name for p in sorted(Path(folder).iterdir())]
        raise FileNotFoundError(
            f'VisionModel: {folder} has no model.safetensors, only '
            f'{", ".join(others[:8]) or "nothing"}. Set checkpoint= to the file of weights.'
        )
    return os.fspath(path)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
