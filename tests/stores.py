"""Recipes for images on object stores, and what is read of them."""


def recipe_of(address, **data):
    """Returns a recipe for a folder on a store; None names no folder."""
    train = {} if address is None else {"train": address}
    return {
        "version": 1,
        "name": "remote",
        "data": {**train, "image_size": 32, "batch_size": 4, **data},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": False,
        "report": False,
        "yardsticks": False,
    }


def count_reads(system, monkeypatch):
    """Returns the list that receives the path of each object that is read from now on."""
    read, cat_file, get_file = [], type(system).cat_file, type(system).get_file

    def cat(self, path, *arguments, **options):
        read.append(path)
        return cat_file(self, path, *arguments, **options)

    def get(self, path, *arguments, **options):
        read.append(path)
        return get_file(self, path, *arguments, **options)

    monkeypatch.setattr(type(system), "cat_file", cat)
    monkeypatch.setattr(type(system), "get_file", get)
    return read
