"""The small searched graphs: operations, cells, genotypes, skeletons, and networks of cells."""
