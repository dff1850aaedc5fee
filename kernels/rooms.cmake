# The rooms that are built, and the operators each brings: affuse_room(<folder> <OpDef symbol>...). A folder without a line
# here is not compiled. A room that only serves others (common, gemm) brings no operators.
affuse_room(common)
