"""Make the embedded model from nothing: `python -m lorakit_cli.demo.training.train WORK [BASE ADAPTERS]`.

WORK keeps the state of each stage, so that a run can be taken up again; BASE and ADAPTERS are where the package's
own data would go.
"""

import sys
from pathlib import Path

from lorakit_cli.demo.training import adapters, autoencoder, denoiser, export, judge


def main() -> None:
    """Run every stage in order."""
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    autoencoder.train(work)
    denoiser.train(work)
    adapters.train(work)
    judge.train(work)
    export.export(work, Path(sys.argv[2]) if len(sys.argv) > 2 else work / "base")
    export.export_adapters(work, Path(sys.argv[3]) if len(sys.argv) > 3 else work / "exported")


if __name__ == "__main__":
    main()
