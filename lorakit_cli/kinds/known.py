"""The list of the adapter algorithms lorakit knows, the more specific first.

Of a module's tensors, the first kind that is whole takes its own; then the next of what is left.
"""

from lorakit_cli.core.kind import Kind
from lorakit_cli.kinds.adalora import ADALORA
from lorakit_cli.kinds.boft import BOFT
from lorakit_cli.kinds.boft_peft import BOFT_PEFT
from lorakit_cli.kinds.diag_oft import DIAG_OFT
from lorakit_cli.kinds.difference import BIAS, FULL, NORM, NORM_BIAS
from lorakit_cli.kinds.dora import DORA, DORA_LOHA, DORA_LOHA_TUCKER, DORA_LOKR, DORA_TUCKER
from lorakit_cli.kinds.embedding import EMBEDDING
from lorakit_cli.kinds.glora import GLORA, GLORA_OLD
from lorakit_cli.kinds.ia3 import IA3, IA3_PEFT
from lorakit_cli.kinds.loha import LOHA, LOHA_TUCKER
from lorakit_cli.kinds.lokr import LOKR
from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.lora_bias import LORA_BIAS
from lorakit_cli.kinds.oft import OFT
from lorakit_cli.kinds.replacement import REPLACEMENT
from lorakit_cli.kinds.sparse import SPARSE
from lorakit_cli.kinds.tucker import LORA_TUCKER

KINDS: tuple[Kind, ...] = (
    ADALORA,
    DORA_TUCKER,
    DORA,
    DORA_LOHA_TUCKER,
    DORA_LOHA,
    DORA_LOKR,
    LORA_TUCKER,
    LORA,
    LOHA_TUCKER,
    LOHA,
    LOKR,
    GLORA_OLD,
    GLORA,
    DIAG_OFT,
    BOFT,
    OFT,
    BOFT_PEFT,
    IA3,
    IA3_PEFT,
    EMBEDDING,
    FULL,
    BIAS,
    NORM,
    NORM_BIAS,
    LORA_BIAS,
    SPARSE,
    REPLACEMENT,
)
