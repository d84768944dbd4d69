/* SPDX-License-Identifier: MIT */
#include "state.h"

int mpl_altmap_set(struct mpl_altmap *altmap, memplug_pfn_t base, uint64_t nr_pages,
                   uint64_t nr_reserve, uint64_t nr_free)
{
    if (nr_reserve > nr_pages || nr_free > nr_pages - nr_reserve)
        return -MPL_EINVAL;
    *altmap = (struct mpl_altmap){
        .base_pfn = base.nr,
        .end_pfn = mpl_pfn_add(base, nr_pages).nr,
        .reserve = nr_reserve,
        .free = nr_free,
    };
    return 0;
}

uint64_t mpl_altmap_offset(const struct mpl_altmap *altmap)
{
    return altmap->reserve + altmap->free;
}

uint64_t mpl_altmap_available(const struct mpl_altmap *altmap)
{
    uint64_t nr_gone = altmap->alloc + altmap->align;

    return altmap->free > nr_gone ? altmap->free - nr_gone : 0;
}

memplug_pfn_t mpl_altmap_take(struct mpl_altmap *altmap, uint64_t nr_pages)
{
    uint64_t next = altmap->base_pfn + altmap->reserve + altmap->alloc + altmap->align;
    uint64_t lowest_bit = nr_pages & (~nr_pages + 1);
    uint64_t pad = mpl_round_up(next, lowest_bit) - next;

    MPL_ASSERT(nr_pages != 0);
    if (nr_pages + pad > mpl_altmap_available(altmap))
        return mpl_pfn(MPL_NO_PFN);
    altmap->alloc += nr_pages;
    altmap->align += pad;
    return mpl_pfn(next + pad);
}

void mpl_altmap_give_back(struct mpl_altmap *altmap, uint64_t nr_pages)
{
    MPL_ASSERT(nr_pages <= altmap->alloc);
    altmap->alloc -= nr_pages;
}
