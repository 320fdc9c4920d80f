"""Experiments: runs of one configuration after another, tracked, resumed and reported."""
