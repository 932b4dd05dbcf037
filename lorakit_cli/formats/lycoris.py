"""The layout of LyCORIS' wrapper around a whole module (SimpleTuner, ai-toolkit): `lycoris_`, then names with `_`.

https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/wrapper.py
"""

from lorakit_cli.core.key_format import prefixed

LYCORIS = prefixed("lycoris", {"lycoris_": ()}, flat=True)
