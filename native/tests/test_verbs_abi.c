/* Our declarations of libibverbs' interface against its own headers, where those are installed; the
 * static_asserts beside our declarations hold everywhere. */
#include "verbs_abi_layout.h"

#include "check.h"

static void every_entry_of_ours_is_where_theirs_is(void)
{
    CHECK(abi_ours_count > 150);
    CHECK(abi_theirs_count == abi_ours_count);
    for (size_t i = 0; i < abi_ours_count && i < abi_theirs_count; i++) {
        CHECK_TEXT(abi_ours[i].name, abi_theirs[i].name);
        if (abi_ours[i].offset != abi_theirs[i].offset || abi_ours[i].size != abi_theirs[i].size) {
            (void)fprintf(stderr, "%s: at %zu, of %zu bytes; the library has it at %zu, of %zu\n",
                          abi_ours[i].name, abi_ours[i].offset, abi_ours[i].size,
                          abi_theirs[i].offset, abi_theirs[i].size);
            check_failures++;
        }
    }
}

int main(void)
{
    if (abi_theirs_count == 0) {
        (void)fputs("test_verbs_abi: no <infiniband/verbs.h> to compare with (libibverbs-dev)\n",
                    stderr);
        return 0;
    }
    every_entry_of_ours_is_where_theirs_is();
    return CHECK_RESULT;
}
