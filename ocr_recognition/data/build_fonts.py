"""Fetch the fonts that words are drawn with, from npm, as they are.

    python build_fonts.py            writes fonts/*.woff2, fonts/LICENSES.txt and fonts/fonts.tsv

Each is the Latin part of a family under the SIL Open Font License, unmodified and under its own name, from the package
@fontsource/FAMILY. `fonts.tsv` has a line for each: file, kind of letters, characters that it lacks. A font of capitals draws
small letters as capitals, so that only what is in capitals is drawn with it.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ocr_recognition.fonts import inspect, write_table

FOLDER = Path(__file__).resolve().parent / "fonts"
VERSION = "5.3.0"
FAMILIES = {
    "sans": "arimo 400 700 400i, hind 500, karla 400 700, lato 400 900 400i, manrope 600, montserrat 400 800, "
    "nunito 700, open-sans 400 700, overpass 700, poppins 500 700i, public-sans 600, raleway 500, rubik 500 800, "
    "source-sans-3 400 700, titillium-web 400 700, work-sans 400 700, cabin 600, jost 500, josefin-sans 600, questrial 400, "
    "signika 600, exo-2 700, b612 700",
    "condensed": "antonio 600, archivo-narrow 500 700, barlow-condensed 500 700, bebas-neue 400, "
    "fira-sans-extra-condensed 600, league-gothic 400, oswald 400 600, "
    "saira-extra-condensed 600, teko 500, yanone-kaffeesatz 600, big-shoulders-display 800, anton 400, sofia-sans 700",
    "slab": "alfa-slab-one 400, arvo 400 700, bree-serif 400, zilla-slab 600, rokkitt 500, patua-one 400, graduate 400",
    "serif": "cinzel 600, cormorant-garamond 600 600i, crimson-pro 500, eb-garamond 500 500i, gelasio 500, "
    "libre-baskerville 400 700 400i, lora 500 600i, merriweather 900, old-standard-tt 400, playfair-display 500 800, "
    "tinos 400 700 400i, vollkorn 500, abril-fatface 400, bodoni-moda 600, domine 600",
    "rounded": "comfortaa 600, fredoka 500, varela-round 400, quicksand 600, m-plus-rounded-1c 700, sniglet 400, baloo-2 700",
    "display": "bangers 400, black-ops-one 400, bowlby-one-sc 400, bungee 400, carter-one 400, "
    "goldman 700, caprasimo 400, michroma 400, orbitron 600, audiowide 400, passion-one 400, righteous 400, russo-one 400, "
    "shrikhand 400, titan-one 400, lilita-one 400, paytone-one 400, rammetto-one 400, "
    "staatliches 400, poiret-one 400, germania-one 400",
    "script": "courgette 400, dancing-script 600, kaushan-script 400, lobster 400, pacifico 400, "
    "damion 400, neucha 400, cookie 400, patrick-hand 400, indie-flower 400, kalam 700, "
    "architects-daughter 400, knewave 400, berkshire-swash 400, caveat 700, handlee 400, gochi-hand 400, "
    "sriracha 400, comic-neue 700, covered-by-your-grace 400, sedgwick-ave 400, shadows-into-light 400",
    "uncial": "uncial-antiqua 400, medievalsharp 400, unifrakturmaguntia 400",
    "stencil": "saira-stencil-one 400",
    "dot matrix": "tiny5 400, press-start-2p 400, vt323 400, pixelify-sans 600, silkscreen 400, jersey-10 400, jersey-20 400, "
    "dotgothic16 400, handjet 600",
    "outlined": "bungee-shade 400, londrina-solid 400",
    "typewriter": "courier-prime 400 700, inconsolata 600, share-tech-mono 400, ibm-plex-mono 500",
}


def main() -> None:
    """Fetch all families and describe their files."""
    FOLDER.mkdir(exist_ok=True)
    fonts, notices, licence = [], [], ""
    for kind, listed in FAMILIES.items():
        for words in map(str.split, listed.split(", ")):
            notice, licence, files = fetch(words[0], words[1:])
            notices.append(notice)
            fonts += [inspect(file, kind) for file in files]
            print(words[0], sum(file.stat().st_size for file in files))
    write_table(fonts, FOLDER / "fonts.tsv")
    (FOLDER / "LICENSES.txt").write_text("\n".join(notices) + "\n\n" + licence, encoding="utf-8")


def fetch(family: str, styles: list[str]) -> tuple[str, str, list[Path]]:
    """The copyright notice, the text of the licence, and the files of a family, which are written."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"@fontsource/{family}@{VERSION}", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:

            def content(name: str) -> bytes:
                file = packed.extractfile(f"package/{name}")
                if file is None:
                    sys.exit(f"{family}: {name} of the package is no file")
                return file.read()

            kind = json.loads(content("package.json"))["license"]
            if kind != "OFL-1.1":
                sys.exit(f"{family}: is under {kind}, not under the Open Font License")
            notice, _, licence = content("LICENSE").decode().partition("This Font Software is licensed")
            files = []
            for style in styles:
                slant = "italic" if style.endswith("i") else "normal"
                path = FOLDER / f"{family}-latin-{style.rstrip('i')}-{slant}.woff2"
                path.write_bytes(content(f"files/{path.name}"))
                files.append(path)
    return f"{family}: {' '.join(notice.split())}", "This Font Software is licensed" + licence, files


if __name__ == "__main__":
    main()
