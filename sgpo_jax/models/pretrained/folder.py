"""The tensors of a checkpoint folder: in one file, or in several with an index."""

import json
import pathlib
from collections.abc import Mapping

from sgpo_jax.models.pretrained.tensors import SafeTensors, read_header

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def open_folder(folder: pathlib.Path) -> SafeTensors:
    """Return the tensors of a folder, in one file or in several.

    With several files the index decides which file a tensor is read from; what a file
    holds beyond that is left alone.

    Raises:
      ValueError: naming the file, if there is none, one is missing or damaged, or the
        index does not fit the files.
    """
    whole, index = folder / _WHOLE, folder / _INDEX
    if whole.is_file():
        return SafeTensors(read_header(whole), whole)
    if not index.is_file():
        raise ValueError(_nothing(folder))
    places = _read_index(index)
    headers = {}
    for file in dict.fromkeys(places.values()):
        if not (folder / file).is_file():
            raise ValueError(_missing(folder, file, places))
        headers[file] = read_header(folder / file)
    for name, file in places.items():
        if name not in headers[file]:
            raise ValueError(
                f"{index} promises {name!r} in {file}, and it is not there: the index"
                " is of other files"
            )
    entries = {name: headers[file][name] for name, file in places.items()}
    return SafeTensors(entries, folder)


def _read_index(index: pathlib.Path) -> dict[str, str]:
    """Return the file of each tensor."""
    try:
        places = json.loads(index.read_text())["weight_map"]
        files = sorted(set(places.values()))
        if any(pathlib.PurePath(file).name != file for file in files):
            raise ValueError(f"{files} are no plain file names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = "no weight_map" if isinstance(error, KeyError) else error
        raise ValueError(f"{index}: {' '.join(str(reason).split())}") from None
    return dict(sorted(places.items()))


def _missing(folder: pathlib.Path, file: str, places: Mapping[str, str]) -> str:
    """Return the message on a missing file of the index, with the remedy."""
    wanted, there = set(places.values()), _parts(folder)
    if there and not wanted & set(there):
        return (
            f"{folder / _INDEX} names {file}, and the folder holds {there[0]}: the"
            " index is of another save; fetch the one of these files"
        )
    lost = sorted(name for name, place in places.items() if place == file)
    return (
        f"{folder / file} is missing: the index has {lost[0]!r} in it"
        f"{f' and {len(lost) - 1} more' if lost[1:] else ''}; fetch it again"
    )


def _parts(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def _nothing(folder: pathlib.Path) -> str:
    """Return why there is nothing to read, never reading a pickle."""
    if parts := [name for name in _parts(folder) if "adapter" not in name]:
        return (
            f"{folder} holds {parts[0]} and neither {_WHOLE} nor {_INDEX}, which says"
            " what is in which file: fetch it again"
        )
    for place in (folder, folder.parent):
        if any(place.glob("model_world_size_*_rank_*.pt")):
            return (
                f"{folder} holds no {_WHOLE}, and {place} the shards of verl: python -m"
                f" verl.model_merger merge --backend fsdp --local_dir {place}"
                " --target_dir FOLDER, and give FOLDER"
            )
    if (folder / "zero_to_fp32.py").is_file():
        return (
            f"{folder} holds no {_WHOLE}, and shards of DeepSpeed: python"
            " zero_to_fp32.py . FOLDER --safe_serialization there, and give FOLDER with"
            " config.json and the tokenizer"
        )
    for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"):
        for path in sorted(folder.glob(pattern)):
            return (
                f"{folder} holds {path.name}, a pickle: loading one runs the code in"
                " it, so none is read; convert it to safetensors first"
            )
    return f"{folder} holds no {_WHOLE}"
