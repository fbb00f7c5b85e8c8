"""Everything about the package is written in settings.ini; this file only hands it to setuptools."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
cfg = config["DEFAULT"]


def needs(key):
    return cfg.get(f"{key}requirements", "").split()


extras = {name: needs(f"{name}_") for name in ("train", "serve", "demo", "dev")}
extras["all"] = sorted({package for packages in extras.values() for package in packages})
extras |= {name: needs(f"{name}_") for name in ("docs", "frameworks", "ray", "engines")}

# Training is for Linux; a finished model embeds on the others too.
classifiers = [
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Operating System :: MacOS",
    "Operating System :: Microsoft :: Windows",
    "Programming Language :: Python :: 3 :: Only",
    *(f"Programming Language :: Python :: {version}" for version in cfg["python_versions"].split()),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Text Processing :: Indexing",
    "Typing :: Typed",
]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"],
    classifiers=classifiers,
    python_requires=f">={cfg['min_python']}",
    install_requires=needs(""),
    extras_require=extras,
    # The stage notebooks travel in the wheel: `minicoil run` executes them wherever it is installed.
    packages=[*find_packages(include=["minicoil", "minicoil.*"]), "minicoil.notebooks"],
    package_dir={"minicoil.notebooks": "nbs"},
    package_data={"minicoil": ["py.typed", "data/*", "data/*/*", "data/beir/qrels/*"], "minicoil.notebooks": ["[0-9]*.ipynb"]},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    zip_safe=False,
)
