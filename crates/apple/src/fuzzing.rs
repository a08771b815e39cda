//! Bodies of fuzz targets, as plain functions.
