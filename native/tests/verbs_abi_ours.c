#include "../src/nc_rdma_abi.h"

#include "verbs_abi_layout.h"

const struct abi_entry abi_ours[] = {ABI_ENTRIES};
const size_t abi_ours_count = sizeof abi_ours / sizeof *abi_ours;
