"""The plots of ``lamanas plot``, of training runs and models. Needs matplotlib (the extra ``plots``)."""
