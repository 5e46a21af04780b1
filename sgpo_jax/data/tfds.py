"""Questions from TensorFlow Datasets, without TensorFlow.

Everything goes through random-access data sources over array_record files, which need
no TensorFlow; `as_dataset` would.
"""

import dataclasses
import functools
import importlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

from . import gsm8k, values
from .collecting import collect
from .queries import Query, content_id, normalize
from .source import BadRow, Loaded

# Builders that TFDS knows only after their module is imported.
_MODULES = {"gsm8k": "tensorflow_datasets.text.gsm8k"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tfds:
    """A data set of TensorFlow Datasets.

    For `gsm8k` the columns, the verifier and the level are those of `Gsm8k`; the
    options below about them are for other data sets.

    Attributes:
      name: of a registered builder, or of a prepared data set under `directory`.
      split: of the questions, such as "train" or "train[:10%]".
      held_out: split of the held-out set; None for no such set.
      directory: TFDS's data directory; None for its default.
      download: download and prepare the data set if it is not there. Without it a
        missing data set is an error at once; TFDS itself retries for minutes.
      prompt: feature with the question.
      answer: feature with the reference.
      verifier: see `Query`.
      strict: raise at the first bad row instead of reporting it.
    """

    name: str
    split: str = "train"
    held_out: str | None = None
    directory: str | None = None
    download: bool = False
    prompt: str = "question"
    answer: str = "answer"
    verifier: str = "exact"
    strict: bool = False

    def load(self) -> Loaded:
        """Read the splits.

        Raises:
          ImportError: if tensorflow-datasets is not installed.
          FileNotFoundError: if the data set is not prepared and `download` is not set.
          ValueError: if there is no such data set or split or, under `strict`, at the
            first bad row.
        """
        builder = self._builder()
        train = self._read(builder, self.split)
        if self.held_out is None:
            return train
        test = self._read(builder, self.held_out)
        return train.with_held_out(test)

    def _builder(self) -> Any:
        tfds = _package()
        if self.name in _MODULES:
            importlib.import_module(_MODULES[self.name])
        try:
            builder = tfds.builder(self.name, data_dir=self.directory)
        except tfds.core.DatasetNotFoundError as error:
            # The rest of the message lists hundreds of names.
            raise ValueError(str(error).partition("\n")[0]) from None
        if not builder.is_prepared():
            if not self.download:
                raise FileNotFoundError(
                    f"{self.name} is not prepared under {builder.data_path}; set "
                    "download=true to fetch it, or directory to where it is"
                )
            builder = tfds.builder(
                self.name, data_dir=self.directory, file_format="array_record"
            )
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
        return builder

    def _read(self, builder: Any, split: str) -> Loaded:
        source = builder.as_data_source(split)
        place = f"{self.name}/{split}"
        if self.name == "gsm8k":
            convert = functools.partial(gsm8k.query, solution="answer")
        else:
            convert = self._query
        return collect([(place, _rows(source))], convert, strict=self.strict)

    def _query(self, row: Mapping[str, Any]) -> Query:
        prompt = values.text(values.cell(row, self.prompt), self.prompt)
        return Query(
            id=content_id(self.name, normalize(prompt)),
            prompt=prompt,
            reference=values.scalar(values.cell(row, self.answer), self.answer),
            verifier=self.verifier,
            family=self.name,
        )


def _rows(source: Any) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    for i in range(len(source)):
        try:
            row = {key: _plain(value) for key, value in source[i].items()}
        except UnicodeDecodeError as error:
            row = BadRow(f"not UTF-8: {error}")
        yield i + 1, row


def _plain(value: Any) -> Any:
    """Return text for bytes and Python numbers for NumPy ones."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if getattr(value, "shape", None) == () else value


def _package() -> types.ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "tensorflow-datasets is not installed: pip install 'sgpo_jax[tfds]'"
        ) from error
    return tensorflow_datasets
