/* Not with our declarations: the names are the same. */
#if __has_include(<infiniband/verbs.h>)
#include <infiniband/verbs.h>

#include "verbs_abi_layout.h"

const struct abi_entry abi_theirs[] = {ABI_ENTRIES};
const size_t abi_theirs_count = sizeof abi_theirs / sizeof *abi_theirs;
#else
#include "verbs_abi_layout.h"

const struct abi_entry abi_theirs[] = {{"", 0, 0}};
const size_t abi_theirs_count = 0;
#endif
