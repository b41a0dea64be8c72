"""Make photographs/*.jpg, grey, 256 pixels high, of those in the package scikit-image that are free of rights.

pip download --no-deps scikit-image==0.26.0 && python build_photographs.py scikit_image-0.26.0-*.whl
"""

import io
import sys
import zipfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent / "photographs"
NAMES = "astronaut.png brick.png camera.png chelsea.png clock_motion.png coffee.png grass.png gravel.png hubble_deep_field.jpg rocket.jpg"
HEIGHT = 256


def main(wheel: str) -> None:
    """Write the photographs beside this script."""
    FOLDER.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as packed:
        for name in NAMES.split():
            photograph = Image.open(io.BytesIO(packed.read(f"skimage/data/{name}"))).convert("L")
            size = max(round(photograph.width * HEIGHT / photograph.height), 1), HEIGHT
            path = FOLDER / f"{Path(name).stem}.jpg"
            photograph.resize(size, Image.Resampling.LANCZOS).save(path, quality=85)
            print(path.name, size, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
