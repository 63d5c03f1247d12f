"""The kinds of forecasters, a file each, under one contract."""
