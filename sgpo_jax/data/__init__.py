"""Sources of verifiable questions, and held-out sets by content."""

from .columns import Columns as Columns
from .demonstrations import Demonstrations as Demonstrations
from .demonstrations import demonstrate as demonstrate
from .describing import describe as describe
from .families import CHARACTERS as CHARACTERS
from .gsm8k import Gsm8k as Gsm8k
from .identity import Fingerprint as Fingerprint
from .identity import fingerprint as fingerprint
from .loading import load as load
from .parsing import SYNTAX as SYNTAX
from .parsing import parse_source as parse_source
from .procedural import Mixture as Mixture
from .procedural import Procedural as Procedural
from .queries import Prompt as Prompt
from .queries import Query as Query
from .queries import content_id as content_id
from .queries import normalize as normalize
from .reasoning_gym import Generator as Generator
from .reasoning_gym import ReasoningGym as ReasoningGym
from .records import Records as Records
from .records import Rows as Rows
from .source import Loaded as Loaded
from .source import Source as Source
from .splitting import divide as divide
from .splitting import split as split
from .tfds import Tfds as Tfds
