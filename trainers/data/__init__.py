"""From files on disk to patches and folds."""
