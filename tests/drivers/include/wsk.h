/*
 * Socket addresses, for drivers that read them out of the parameters of an open. Winsock Kernel itself is not declared.
 * mingw-w64 has these in winsock headers that want a program's <windows.h>.
 */
#ifndef FWBROKER_TESTS_WSK_H
#define FWBROKER_TESTS_WSK_H

#include <in6addr.h>
#include <inaddr.h>

#define AF_UNSPEC 0
#define AF_INET 2
#define AF_INET6 23
typedef USHORT ADDRESS_FAMILY;

typedef struct sockaddr {
    ADDRESS_FAMILY sa_family;
    CHAR sa_data[14];
} SOCKADDR, *PSOCKADDR;

typedef struct sockaddr_in {
    ADDRESS_FAMILY sin_family;
    USHORT sin_port; /* network byte order, as all that follows */
    IN_ADDR sin_addr;
    CHAR sin_zero[8];
} SOCKADDR_IN, *PSOCKADDR_IN;

typedef struct sockaddr_in6 {
    ADDRESS_FAMILY sin6_family;
    USHORT sin6_port;
    ULONG sin6_flowinfo;
    IN6_ADDR sin6_addr;
    ULONG sin6_scope_id;
} SOCKADDR_IN6, *PSOCKADDR_IN6;

typedef struct sockaddr_storage {
    ADDRESS_FAMILY ss_family;
    CHAR __ss_pad1[6];
    LONGLONG __ss_align;
    CHAR __ss_pad2[112];
} SOCKADDR_STORAGE, *PSOCKADDR_STORAGE;

_Static_assert(sizeof(SOCKADDR_IN) == 16, "the layout differs from that of Windows");
_Static_assert(sizeof(SOCKADDR_IN6) == 28, "the layout differs from that of Windows");
_Static_assert(sizeof(SOCKADDR_STORAGE) == 128, "the layout differs from that of Windows");

NTSYSAPI LONG NTAPI RtlIpv4AddressToStringExA(const IN_ADDR *Address, USHORT Port, PCHAR AddressString,
                                              PULONG AddressStringLength);
NTSYSAPI LONG NTAPI RtlIpv4AddressToStringExW(const IN_ADDR *Address, USHORT Port, PWSTR AddressString,
                                              PULONG AddressStringLength);
NTSYSAPI LONG NTAPI RtlIpv6AddressToStringExA(const IN6_ADDR *Address, ULONG ScopeId, USHORT Port, PCHAR AddressString,
                                              PULONG AddressStringLength);
NTSYSAPI LONG NTAPI RtlIpv6AddressToStringExW(const IN6_ADDR *Address, ULONG ScopeId, USHORT Port, PWSTR AddressString,
                                              PULONG AddressStringLength);
#ifdef UNICODE
#define RtlIpv4AddressToStringEx RtlIpv4AddressToStringExW
#define RtlIpv6AddressToStringEx RtlIpv6AddressToStringExW
#else
#define RtlIpv4AddressToStringEx RtlIpv4AddressToStringExA
#define RtlIpv6AddressToStringEx RtlIpv6AddressToStringExA
#endif

#endif
