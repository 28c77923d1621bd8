"""Pictures of a run and of a model, for ``lamanas plot``. Needs matplotlib (the extra ``plots``)."""
