//! Number formats and the arithmetic of the instructions that round in their own way.
