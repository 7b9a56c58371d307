"""Files of a run: tensors, tables, run folders."""

from survlens.artifacts.atomic import WriteError as WriteError
from survlens.artifacts.attribution_files import read_attributions as read_attributions
from survlens.artifacts.attribution_files import write_attributions as write_attributions
from survlens.artifacts.run_folder import (
    RunFolder as RunFolder,
)
from survlens.artifacts.run_folder import (
    read_json as read_json,
)
from survlens.artifacts.run_folder import (
    read_table as read_table,
)
from survlens.artifacts.run_folder import (
    write_json as write_json,
)
from survlens.artifacts.run_folder import (
    write_table as write_table,
)
from survlens.artifacts.stylegan2_checkpoint import StyleGAN2Weights as StyleGAN2Weights
from survlens.artifacts.stylegan2_checkpoint import convert as convert
from survlens.artifacts.stylegan2_checkpoint import load_weights as load_weights
from survlens.artifacts.stylegan2_checkpoint import read_official as read_official
from survlens.artifacts.stylegan2_checkpoint import save_weights as save_weights
from survlens.artifacts.tensors import (
    load_tensors as load_tensors,
)
from survlens.artifacts.tensors import (
    read_metadata as read_metadata,
)
from survlens.artifacts.tensors import (
    save_tensors as save_tensors,
)
