//! Out-of-band information of lists.

use ndis::raw::{
    IPsecOffloadV1NetBufferListInfo, IPsecOffloadV2HeaderNetBufferListInfo, IPsecOffloadV2TunnelNetBufferListInfo,
    Ieee8021QNetBufferListInfo, MediaSpecificInformation, NET_BUFFER_LIST, NetBufferListCancelId,
    NetBufferListFilteringInfo, NetBufferListHashInfo, NetBufferListHashValue, NetBufferListProtocolId,
    TcpIpChecksumNetBufferListInfo, TcpLargeSendNetBufferListInfo, VirtualSubnetInfo,
};

use super::check_some;
use crate::ddi::{Call, exports};
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisCopySendNetBufferListInfo(max 2) = copy_send;
    NdisCopyReceiveNetBufferListInfo(max 2) = copy_receive;
}

/// What goes along on the way down and on the way up.
const BOTH: &[usize] = &[
    TcpIpChecksumNetBufferListInfo,
    IPsecOffloadV1NetBufferListInfo,
    // Of receives, TcpReceiveNoPush.
    TcpLargeSendNetBufferListInfo,
    Ieee8021QNetBufferListInfo,
    MediaSpecificInformation,
    // Of receives, NetBufferListFrameType.
    NetBufferListProtocolId,
    IPsecOffloadV2TunnelNetBufferListInfo,
    IPsecOffloadV2HeaderNetBufferListInfo,
    VirtualSubnetInfo,
    NetBufferListFilteringInfo,
];

extern "efiapi" fn copy_send(destination: Raw<NET_BUFFER_LIST>, source: Raw<NET_BUFFER_LIST>) {
    let call = Call::enter();
    copy(&call, destination, source, &[NetBufferListCancelId]);
}

extern "efiapi" fn copy_receive(destination: Raw<NET_BUFFER_LIST>, source: Raw<NET_BUFFER_LIST>) {
    let call = Call::enter();
    copy(&call, destination, source, &[NetBufferListHashValue, NetBufferListHashInfo]);
}

fn copy(call: &Call, destination: Raw<NET_BUFFER_LIST>, source: Raw<NET_BUFFER_LIST>, more: &[usize]) {
    check_some(call, destination, "destination");
    check_some(call, source, "source");
    let info = |list| field!(list, NET_BUFFER_LIST, NetBufferListInfo).cast::<usize>();
    for index in BOTH.iter().chain(more) {
        info(destination).index(*index).write(info(source).index(*index).read());
    }
}
