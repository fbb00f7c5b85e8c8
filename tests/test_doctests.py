"""The examples in docstrings of the package give what stands below them."""
import doctest
import importlib
import pkgutil

import pytest

import minicoil

FOUND = pkgutil.walk_packages(minicoil.__path__, "minicoil.")
NAMES = sorted(module.name for module in FOUND if not module.name.endswith("__main__"))
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODEL = "outputs/demo/23_model"  # as the how-to pages call it; for the examples a link to a small model


def examples(name):
    """The docstrings of a module that have examples."""
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, name) if test.examples]


@pytest.fixture
def beside_a_model(tmp_path, monkeypatch, request):
    """Work in an empty folder; the function given out puts the model there that examples open by its path."""
    monkeypatch.chdir(tmp_path)

    def link():
        folder = tmp_path / MODEL
        if not folder.exists():
            folder.parent.mkdir(parents=True)
            folder.symlink_to(request.getfixturevalue("model_folder"))

    return link


@pytest.mark.parametrize("name", NAMES)
def test_examples_hold(name, beside_a_model):
    """Every example of a module gives what stands below it."""
    for test in examples(name):
        if MODEL in test.docstring:
            beside_a_model()
        said = []
        failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append).failed
        assert not failed, "".join(said)


def test_a_wrong_example_is_found():
    """The proof that the test above can fail."""
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(test, out=[].append).failed == 1
