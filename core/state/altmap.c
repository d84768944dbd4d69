/* SPDX-License-Identifier: MIT */
#include "state.h"

void mpl_altmap_set(struct mpl_altmap *altmap, memplug_pfn_t base, uint64_t nr_pages,
                    uint64_t nr_free)
{
    MPL_ASSERT(nr_free <= nr_pages);
    *altmap = (struct mpl_altmap){
        .base_pfn = base.nr,
        .end_pfn = mpl_pfn_add(base, nr_pages).nr,
        .free = nr_free,
    };
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
