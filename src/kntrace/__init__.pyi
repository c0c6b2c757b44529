from .archive import mirrored as mirrored
from .archive import open_run as open_run
from .attribution import attribute as attribute
from .causal import ablate as ablate
from .compacting import compact as compact
from .comparison import compare as compare
from .contrasts import contrast as contrast
from .distance import pairwise_distances as pairwise_distances
from .errors import KntraceError as KntraceError
from .formation import formation_processes as formation_processes
from .formation import knowledge_neurons as knowledge_neurons
from .presets import find_preset as find_preset
from .settings import Settings as Settings
from .study import load_study as load_study
from .suite import load_suite as load_suite
from .sweep import run as run

__version__: str
