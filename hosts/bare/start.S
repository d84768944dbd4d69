/* SPDX-License-Identifier: MIT */
/*
 * From what QEMU leaves (PVH: 32 bits, flat, no paging, ebx points to the start info) to C in long
 * mode, for the first CPU; from real mode for the others; and the way into interrupt handlers.
 */
#define CODE64 0x08
#define DATA 0x10
#define CODE32 0x18
#define CR0_PG_WP_MP_PE 0x80010003
#define CR4_PAE_SSE 0x620
#define EFER 0xc0000080
#define EFER_LME_NXE 0x900
#define DIRECT_SLOT 273

    .section .note.pvh, "a", @note
    .long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad bare_start

/* --- the first CPU ---------------------------------------------------------------------------- */

    .section .text.start, "ax"
    .code32
    .globl bare_start
bare_start:
    cli
    cld
    movl $boot_stack_end, %esp
    movl %ebx, %edi
    movl $boot_pml4, %eax
    movl %eax, %cr3
    call long_mode
    ljmp $CODE64, $1f
    .code64
1:  call load_segments
    movl %edi, %edi
    xorl %ebp, %ebp
    call bare_main
2:  hlt
    jmp 2b

    .code32
long_mode:
    lgdt boot_gdt_pointer
    movl $CR4_PAE_SSE, %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LME_NXE, %eax
    wrmsr
    movl $CR0_PG_WP_MP_PE, %eax
    movl %eax, %cr0
    ret

    .code64
load_segments:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    ret

/* --- the others: copied below 1 MiB, started there in real mode ------------------------------- */

    .globl bare_ap_code, bare_ap_code_end
    .code16
bare_ap_code:
    cli
    cld
    lgdtl %cs:(boot_gdt_copy - bare_ap_code)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $CODE32, $ap_start32
    .balign 4
boot_gdt_copy:
    .word 4 * 8 - 1
    .long boot_gdt
bare_ap_code_end:

    .code32
ap_start32:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl bare_ap_stack, %esp
    movl bare_ap_root, %eax
    movl %eax, %cr3
    call long_mode
    ljmp $CODE64, $1f
    .code64
1:  call load_segments
    movq bare_ap_stack, %rsp
    movl bare_ap_index, %edi
    xorl %ebp, %ebp
    call bare_ap_main
2:  hlt
    jmp 2b

/* --- accesses that may find a page lost ------------------------------------------------------- */

    .text
    .globl bare_load, bare_store, bare_access, bare_access_end, bare_access_failed
bare_access:
bare_load:
    movq (%rdi), %rax
    movq %rax, (%rsi)
    movl $1, %eax
    ret
bare_store:
    movq %rsi, (%rdi)
    movl $1, %eax
    ret
bare_access_end:
bare_access_failed:
    xorl %eax, %eax
    ret

/* --- interrupts ------------------------------------------------------------------------------- */

/* Every vector has a stack of its own (IST): the code that is interrupted has a red zone. */
    .text
    .balign 16
    .globl bare_stubs
bare_stubs:
    .set i, 0
    .rept 64
    .balign 16
    .if (i != 8) && ((i < 10) || (i > 14)) && (i != 17)
    pushq $0
    .endif
    pushq $i
    jmp enter
    .set i, i + 1
    .endr

enter:
    .irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    pushq %\reg
    .endr
    cld
    movq %rsp, %rdi
    call bare_interrupt
    .irp reg, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    popq %\reg
    .endr
    addq $16, %rsp
    iretq

/* --- data ------------------------------------------------------------------------------------- */

    .data
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cf9b000000ffff
boot_gdt_pointer:
    .word 4 * 8 - 1
    .long boot_gdt

/* The first GiB, at 0 and in the direct map, until there are better tables. */
    .balign 4096
boot_pml4:
    .quad boot_pdpt + 3
    .fill DIRECT_SLOT - 1, 8, 0
    .quad boot_pdpt + 3
    .fill 511 - DIRECT_SLOT, 8, 0
boot_pdpt:
    .quad boot_pd + 3
    .fill 511, 8, 0
boot_pd:
    .set i, 0
    .rept 512
    .quad i * 0x200000 + 0x83
    .set i, i + 1
    .endr

    .bss
    .balign 16
    .skip 65536
boot_stack_end:

    .section .note.GNU-stack, "", @progbits
