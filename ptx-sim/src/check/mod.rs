//! The sanitizer: what is known about each piece of memory, and what a memory request costs.
