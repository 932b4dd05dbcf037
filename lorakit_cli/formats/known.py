"""The list of the layouts of key names lorakit knows, the most particular first."""

from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.formats.attn_procs import ATTN_PROCS
from lorakit_cli.formats.cloneofsimo import CLONEOFSIMO
from lorakit_cli.formats.comfy import COMFY
from lorakit_cli.formats.diffusers import DIFFUSERS
from lorakit_cli.formats.kohya import KOHYA
from lorakit_cli.formats.lycoris import LYCORIS
from lorakit_cli.formats.onetrainer import ONETRAINER
from lorakit_cli.formats.peft import PEFT
from lorakit_cli.formats.plain import PLAIN
from lorakit_cli.formats.xlabs import XLABS

FORMATS: tuple[KeyFormat, ...] = (
    CLONEOFSIMO, KOHYA, ONETRAINER, LYCORIS, ATTN_PROCS, XLABS, COMFY, PEFT, DIFFUSERS, PLAIN,
)  # fmt: skip
